"""Documents of issued invoices: JSON made once and stored, HTML and files made from it."""
