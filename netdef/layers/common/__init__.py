"""What several layers share: base classes, checks of shapes, labels, normalizers."""
