"""How fast this installation is on this machine: operators, layers and models beside rivals and floors."""
