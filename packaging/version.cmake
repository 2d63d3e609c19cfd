# Writes OUTPUT, a C file that defines znsd_version[]: what --version of both programs tells.
# Run by each build; the file is only touched when the text changes, so that nothing is linked again
# without need.
#   VERSION  the project's, such as 0.1.0: all there is to tell in a tarball
#   PACKAGE  a packager's own version; told in place of everything else where it is not empty
#   SOURCE   the top of the tree; where it is a git checkout, HEAD is told as well
cmake_minimum_required(VERSION 3.25)
set(text "${VERSION}")
if(PACKAGE)
	set(text "${PACKAGE}")
else()
	find_program(GIT git)
	if(GIT)
		# A tarball unpacked somewhere within another project's checkout is not that project.
		execute_process(COMMAND ${GIT} rev-parse --show-toplevel WORKING_DIRECTORY ${SOURCE}
			OUTPUT_VARIABLE top OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
		file(REAL_PATH "${SOURCE}" source)
		if(top STREQUAL source)
			execute_process(COMMAND ${GIT} describe --always --dirty WORKING_DIRECTORY ${SOURCE}
				OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
		endif()
	endif()
	if(head)
		string(APPEND text " (${head})")
	endif()
endif()

file(CONFIGURE OUTPUT "${OUTPUT}" @ONLY CONTENT
"/* Made by packaging/version.cmake. */
#include \"version.h\"

const char znsd_version[] = \"@text@\";
")
