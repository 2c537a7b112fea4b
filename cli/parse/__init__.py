"""What users type, as values: one file per kind of text. Each function raises InvalidArgument in docker's words."""
