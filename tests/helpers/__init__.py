"""What tests of several rooms share: servers, ledgers, books, and ways to ask them."""
