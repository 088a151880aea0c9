//! Installing and removing Holdfast as one plan that describes, applies and reverts itself.
