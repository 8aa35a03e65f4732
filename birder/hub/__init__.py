"""From the name of a published model to a whole file on this computer, and to a network.

``fetch`` finds or downloads the file, ``load`` builds the network. Only ``load`` needs torch.
"""
