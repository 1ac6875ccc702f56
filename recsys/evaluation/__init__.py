"""Full ranking of a catalogue for users: top lists, figures per user, slices, conventions of other libraries."""
