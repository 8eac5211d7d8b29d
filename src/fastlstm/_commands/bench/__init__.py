"""``fastlstm bench``: what a shape costs, beside other libraries and the roofline."""
