"""What is learned in context: samplers on the device, their concept labels, their exact solutions."""
