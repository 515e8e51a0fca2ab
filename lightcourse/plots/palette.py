"""The colours of all figures."""

# Wong 2011, "Color blindness", Nature Methods 8:441: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
