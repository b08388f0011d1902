"""Sign-ins of people in browsers, and their visits to what runs behind the gateway."""
