"""What `inspect` prints, one file per noun: docker's field names over our messages. All pure."""
