"""What is spoken on a connection: the protocol and its sessions."""
