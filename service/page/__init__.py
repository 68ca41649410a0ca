"""The page: what people see of the service in a browser. Rendered here, works without JavaScript for reading, and under CSP 'self'."""
