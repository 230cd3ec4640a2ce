"""AI2BMD: dynamics of whole proteins by a network trained on small fragments."""
