"""The command ``lgmc``: one file per verb. Nothing imports this package."""
