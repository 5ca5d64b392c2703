"""The reference of the site, written from the code: settings, commands, events, errors. It knows no guide."""
