"""nginx and Envoy before the services, configured as the chart's objects say."""
