"""How hypothesis runs here."""

from hypothesis import settings

# A slow machine is no failure of a law.
settings.register_profile("laws", deadline=None)
settings.load_profile("laws")
