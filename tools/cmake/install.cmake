# What `cmake --install` gives: the shared library, its public headers, pkg-config file, CMake package, the program, its manual
# page and completions, and the shipped models.
include(CMakePackageConfigHelpers)

add_library(kac SHARED $<TARGET_OBJECTS:kac_objects> ${KAC_ISA_OBJECTS})
target_link_libraries(kac PRIVATE kac_objects)
target_include_directories(kac INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                         $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(kac PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
                                     LINKER_LANGUAGE C)
add_library(kac::kac ALIAS kac)

install(TARGETS kac EXPORT kacTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/kac DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
if(TARGET kac_cli)
  install(TARGETS kac_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES tools/man/kac.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES tools/completion/kac.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME kac)
  install(FILES tools/completion/_kac DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
endif()
install(DIRECTORY weights DESTINATION ${CMAKE_INSTALL_DATADIR}/kac)
install(FILES LICENSE THIRD_PARTY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY tools/examples DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_file(tools/cmake/kac.pc.in kac.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kac.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
configure_package_config_file(tools/cmake/kacConfig.cmake.in kacConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kac PATH_VARS CMAKE_INSTALL_DATADIR)
write_basic_package_version_file(kacConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kacConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/kacConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kac)
install(EXPORT kacTargets NAMESPACE kac:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/kac)
