"""cryoSTAR: conformations and density maps from particle images and a reference model."""
