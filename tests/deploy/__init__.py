"""What is deployed: containers, units, settings, alerts and boards agree with the program and with each other."""
