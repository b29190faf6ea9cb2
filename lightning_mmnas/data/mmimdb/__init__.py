"""MM-IMDB: posters, plots and genres of films."""
