"""What scripts carry and run elsewhere: the standard library only, of Python 3.9 or newer.

Drydock imports these modules, and every generated script carries them (builder/script/machinery.py), so that there is
one implementation of a build. They import nothing of Drydock but each other.
"""
