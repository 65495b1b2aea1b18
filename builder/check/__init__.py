"""Questions that change nothing: is this machine fit, is it faster, is a second build the same?"""
