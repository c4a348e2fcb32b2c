SELECT token FROM owners
