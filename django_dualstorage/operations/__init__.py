"""One verb per file: plan, show, execute. Commands parse and print; what they do is here."""
