"""What an output's numbers are worth: labels of people held against them."""
