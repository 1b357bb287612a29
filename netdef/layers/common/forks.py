"""Layers that several forks of Caffe have under one name: nothing of another fork is guessed."""

from __future__ import annotations

from netdef.layer import Layer


def refuse_fields(layer: Layer, config: str, fork: str, *fields: str) -> None:
    """Raise where a field that only ``fork`` has asks the layer for something it does not do."""
    message = getattr(layer.message, config)
    for field in fields:
        descriptor = message.DESCRIPTOR.fields_by_name[field]
        value = getattr(message, field)
        if len(value) if descriptor.is_repeated else value != descriptor.default_value:
            raise layer.error(
                f"{field} is of {fork}, whose {layer.type} is another layer", config, field
            )
