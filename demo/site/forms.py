"""What visitors send."""

from __future__ import annotations

from django import forms


class UploadForm(forms.Form):
    """One file."""

    file = forms.FileField(max_length=150, widget=forms.ClearableFileInput(attrs={"aria-label": "File"}))
