"""Workers as Ray actors: processes of an engine on the machines of a cluster."""
