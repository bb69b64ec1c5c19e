"""What rests: representations, file formats, segments and documents."""
