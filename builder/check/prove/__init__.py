"""`drydock lock --upgrade PKG --prove`: an upgrade that is kept only if proofs, resume and training hold with it."""
