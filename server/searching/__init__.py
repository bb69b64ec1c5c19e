"""One index at work: what is checked, admitted, encoded together, searched and written."""
