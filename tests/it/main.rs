mod dagbag;
