"""Pure rules: dataclasses in, dataclasses out. No I/O, no Django, no boto3."""
