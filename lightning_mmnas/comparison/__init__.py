"""What a search gained: rivals, trained and scored as the found network is."""
