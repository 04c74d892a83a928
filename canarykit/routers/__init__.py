"""How traffic is split between the versions: one file for each kind of gateway."""
