"""One file per attribute, each defining `ATTRIBUTE`. `calm.attributes.taxonomy` finds them by themselves."""
