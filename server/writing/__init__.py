"""Writing over HTTP: one writer, jobs that are durable when they say so, readers that are not disturbed."""
