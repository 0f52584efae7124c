"""Predicting the validation split, by modules named as those that predict test. Of several models of a side it says which is tested."""
