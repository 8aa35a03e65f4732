"""Training methods, one file each; what is learned by them stays in the network, they themselves are thrown away."""
