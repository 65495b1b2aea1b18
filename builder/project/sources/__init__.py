"""Sources of profiles: git repositories, archives, installed packages and folders that a project names.

A source is data. It is fetched by its pin, checked, and read; what it names runs only in an environment that a person
has agreed to build.
"""
