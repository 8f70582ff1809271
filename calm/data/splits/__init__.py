"""Stage `split`: test photographs and test raters."""
