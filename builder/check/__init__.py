"""Questions that change nothing: is this machine fit, is it faster, is it the same again?"""
