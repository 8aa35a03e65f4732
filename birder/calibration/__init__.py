"""Making a model's scores mean what they say, and telling what is not in its list: ``birder calibrate``."""
