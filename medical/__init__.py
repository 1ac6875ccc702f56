"""Medical images: 3D volumes (CT, MR) with radiology reports, from the field's files to a searchable archive."""
