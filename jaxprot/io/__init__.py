"""Files to core objects and back; the only place that knows a file format. Import the module of the format wanted."""
